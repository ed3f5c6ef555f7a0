"""TradeFM: the network. Knows tokens; knows no market and no agent."""
