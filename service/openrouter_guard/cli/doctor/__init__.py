"""``openrouter-guard doctor``: checks the way to everything that this product needs, and says what to do."""
