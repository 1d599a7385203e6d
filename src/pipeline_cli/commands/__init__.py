"""The commands, one file per noun: parse, one call into `pipeline`, render."""
