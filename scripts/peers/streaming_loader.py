"""mosaicml-streaming on the rows of a JSONL file: shuffled rows a second, and the first batch after a
jump into the middle of an epoch. One line of JSON."""

import json
import statistics
import sys
import time

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset


def loader(data):
    return StreamingDataLoader(data, batch_size=192, num_workers=0, collate_fn=list)


def main(rows, folder):
    columns = {"prompt": "str", "policy": "str", "response": "str"}
    begun = time.perf_counter()
    count = 0
    with MDSWriter(out=folder, columns=columns, size_limit=1 << 26) as out:
        for line in open(rows):
            row = json.loads(line)
            out.write({name: row[name] for name in columns})
            count += 1
    found = {"import_rows": count / (time.perf_counter() - begun)}
    data = StreamingDataset(local=folder, shuffle=True, batch_size=192, num_canonical_nodes=1)
    batches = loader(data)
    begun = time.perf_counter()
    seen, state = 0, None
    for number, batch in enumerate(batches):
        seen += len(batch)
        if number == 100:
            state = batches.state_dict()
    found["rows"] = seen / (time.perf_counter() - begun)
    seeks = []
    for _ in range(5):
        again = loader(data)
        again.load_state_dict(state)
        begun = time.perf_counter()
        next(iter(again))
        seeks.append(time.perf_counter() - begun)
    found["seek"] = statistics.median(seeks)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
