"""Is the model good? Questions, answers, a judge, and scores one can trust."""
