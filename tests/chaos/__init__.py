"""A run in a storm: parts are killed, stopped and rolled back, and a checker reads the rest."""
