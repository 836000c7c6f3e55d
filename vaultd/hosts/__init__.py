"""How calls arrive: a host turns a socket into a Call and hands it to the chain.

No rule, no message type and no policy may be here.
"""
