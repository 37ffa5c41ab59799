"""The bodies of requests and answers, as OpenAPI documents them."""
