"""in: what head and station tell each other. out: values, checked; each is JSON or bytes on the way."""
