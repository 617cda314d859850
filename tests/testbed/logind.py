#!/usr/bin/env python3
"""What a kubelet's graceful shutdown needs of systemd-logind, on a bus of its own: logind.py BUS-ADDRESS FOLDER

https://www.freedesktop.org/software/systemd/man/org.freedesktop.login1.html. It grants delay locks (`Inhibit`), says how
long one may delay (`InhibitDelayMaxUSec`), and on SIGUSR1 announces that the machine shuts down (`PrepareForShutdown`).
When the last lock is released, it writes FOLDER/released: a real logind would go on with the shutdown then.

The wire protocol is real, and so is the kubelet at the other end. It does not prove what systemd does before and after,
nor that anything waits for as long as the lock asks.
"""
import os
import pathlib
import signal
import sys
import threading

from jeepney import DBusAddress, HeaderFields, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

MANAGER = "org.freedesktop.login1.Manager"
DELAY_MAX_USEC = 600 * 1_000_000

address, folder = sys.argv[1], pathlib.Path(sys.argv[2])
connection = open_dbus_connection(address, enable_fds=True)
connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.login1"))
manager = DBusAddress("/org/freedesktop/login1", interface=MANAGER)
locks, guard = set(), threading.Lock()


def released(lock):
    """The other end was closed, or its process has ended."""
    os.read(lock, 1)
    with guard:
        locks.discard(lock)
        if not locks:
            (folder / "released").write_text("")


def answer(message):
    header = message.header.fields
    asked = (header.get(HeaderFields.interface), header.get(HeaderFields.member))
    match asked, message.body:
        case ("org.freedesktop.DBus.Properties", "Get"), (_, "InhibitDelayMaxUSec"):
            return new_method_return(message, "v", (("t", DELAY_MAX_USEC),))
        case (interface, "Inhibit"), ("shutdown", _, _, "delay") if interface == MANAGER:
            ours, theirs = os.pipe()
            with guard:
                locks.add(ours)
            threading.Thread(target=released, args=[ours], daemon=True).start()
            reply = new_method_return(message, "h", (theirs,))
            connection.send(reply)
            os.close(theirs)
            return None
        case _:
            return new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", "s", (f"{asked} is not here",))


signal.signal(signal.SIGUSR1, lambda *_: connection.send(new_signal(manager, "PrepareForShutdown", "b", (True,))))
(folder / "ready").write_text("")
while True:
    message = connection.receive()
    if message.header.message_type == MessageType.method_call and (reply := answer(message)):
        connection.send(reply)
