"""Background order flow: interchangeable answers to "what happens next?"."""
