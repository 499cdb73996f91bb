"""Judge metrics by videos whose faults are known, and by samples whose truth is known: `videogpa benchmark reward`."""
