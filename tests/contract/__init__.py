"""What every engine must do, held against each of them, sync and async."""
