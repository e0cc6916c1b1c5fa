"""The search: Optuna over bit allocations, trials through mmq's one path."""
