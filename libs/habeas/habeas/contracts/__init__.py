"""Every message that crosses a boundary, the topics it travels on, and the words that both sides share."""
