"""Small models with numbers, in the layouts that people download, and what stock makes of them."""
