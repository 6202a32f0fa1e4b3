"""Values and secrets that come from the environment. Below `settings`; knows no pipeline run."""
