"""SafeHelp: a benchmark of helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
