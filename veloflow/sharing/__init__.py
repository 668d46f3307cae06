"""How slaves share parameters: pure arithmetic on arrays, and what a user writes to choose."""
