"""The pipeline on one machine: an AWS emulator, and the stack that it runs."""
