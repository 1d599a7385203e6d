"""The pipeline on one machine: the emulator, what it lacks, and the stack it runs."""
