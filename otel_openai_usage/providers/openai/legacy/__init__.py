"""The old usage endpoint, `GET /v1/usage`, for an ordinary key."""
