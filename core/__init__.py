"""Rules: pure functions and frozen types, no IO, clock, randomness or environment."""
