"""Golden runs: small configurations and the hashes of what they predict."""
