"""Memory tasks: environments that only an agent with a memory can solve."""
