"""Arms, trials and their store, workers, choice: what every comparison shares. It knows no task."""
