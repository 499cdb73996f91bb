"""Links of the documentation that leave its folder: results come along, and what is code is named without a link."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:\.\./)+([^)#\s]+)(?:#[^)]*)?\)")
RESULTS = (".csv", ".json", ".png", ".md")


def on_files(files: Files, config: Any) -> Files:
    """Add the results of the benchmarks to the site."""
    home = Path(config.config_file_path).parent
    for path in sorted((home / "benchmarks").rglob("*")):
        if path.suffix in RESULTS:
            name = path.relative_to(home).as_posix()
            files.append(
                File.generated(
                    config, f"{name}.txt" if path.suffix == ".md" else name, abs_src_path=str(path)
                )
            )
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Keep links to files that the site has, and the words of all others."""
    up = "../" * page.file.src_uri.count("/")

    def kept(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        for name in (target, f"{target}.txt"):
            if files.get_file_from_path(name) is not None:
                return f"[{text}]({up}{name})"
        return text

    return LINK.sub(kept, markdown)
