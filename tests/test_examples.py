"""The notebook runs from top to bottom on what ships with the package."""

from pathlib import Path

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_steps.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    # Every process that runs tests looks into this file; loading these takes seconds.
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    done = NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    printed = "".join(
        o.text for cell in done.cells for o in cell.get("outputs", []) if o.output_type == "stream"
    )
    assert "12 videos of 3 prompts" in printed
    assert "oracle_unexplained" in printed
