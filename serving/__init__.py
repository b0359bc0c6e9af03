"""A gateway that outlives its workers, and the agent that plugs any OpenAI-compatible engine into it."""
