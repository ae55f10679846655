"""Files from elsewhere: the Hugging Face hub, Google Drive, http(s); a cache; archives."""
