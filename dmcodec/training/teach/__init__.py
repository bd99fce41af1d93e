"""Teachers: transcripts, and the features of speech and language models, stored beside the audio."""
