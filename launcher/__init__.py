"""The `vlaunch` command and the one path of a launch: recipe, plan, task, run, report."""
