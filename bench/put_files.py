#!/usr/bin/python3
"""put_files.py ENDPOINT REGION BUCKET KEYS THREADS DIRECTORY: every file below goes into a bucket, nothing else.

What an S3 server takes for so many bytes when the client costs next to nothing: payloads are not digested. KEYS is
a directory with access-key, secret-key and ca.pem.
"""

import os
import pathlib
import queue
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "services"))

from s3_client import S3Client  # noqa: E402


def main():
    endpoint, region, bucket, keys, threads, directory = sys.argv[1:]
    key, secret = (pathlib.Path(keys, name).read_text(encoding="ascii").strip()
                   for name in ("access-key", "secret-key"))
    names, failed = queue.SimpleQueue(), []
    for top, _, found in os.walk(directory):
        for name in found:
            names.put(pathlib.Path(top, name))

    def work():
        client = S3Client(endpoint, key, secret, region, pathlib.Path(keys, "ca.pem"))
        while not failed:
            try:
                path = names.get_nowait()
            except queue.Empty:
                return
            try:
                client.put(bucket, str(path.relative_to(directory)), path.read_bytes(),
                           {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
            except Exception as error:  # pylint: disable=broad-exception-caught
                failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return str(failed[0]) if failed else 0


if __name__ == "__main__":
    sys.exit(main())
