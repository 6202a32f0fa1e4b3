"""What a YAML file means: text, marks, model, plan. Knows no model, no step's code, no Prefect."""
