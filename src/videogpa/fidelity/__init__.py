"""How well metrics rank videos whose faults are known."""
