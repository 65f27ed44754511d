"""`python -m bridge.workers DOOR LINE [OUTBOX]`: one worker. Only a supervisor starts it: these are sockets of its own."""

from bridge.workers.worker import main

if __name__ == "__main__":
    main()
