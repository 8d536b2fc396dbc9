"""`weince diagnose` and `weince noise-floor`: is the tail of these embeddings Weibull?"""
