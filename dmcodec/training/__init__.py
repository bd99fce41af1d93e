"""Training: audio to a data folder, teachers' features beside it, and the trainer that reads both."""
