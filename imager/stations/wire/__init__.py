"""in: what head and station tell each other. out: values, checked, each of bounded size."""
