"""Statistics of what a model's layers are given: gathered while it runs, merged, compared with those stored."""
