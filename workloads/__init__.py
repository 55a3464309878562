"""Where requests come from: arrivals, lengths, traces; all randomness is spent here."""
