"""Shards as other programs lay them out: what our reader must take as well."""

import h5py
import numpy as np


def write_foreign(source, target, name, how):
    """A pair shard's contents again. name: chunked, compressed, userblock, swapped (big-endian), marked (bf16 as 16-bit integers
    with an attribute); how: options of h5py's create_dataset."""
    with h5py.File(source) as old, h5py.File(target, "w", userblock_size=1024 if name == "userblock" else 0) as new:
        new.attrs.update({"schema_version": 1, "kind": "pair", "producer": old.attrs["producer"], "note": old.attrs["note"]})

        def copy(path, dataset):
            if not isinstance(dataset, h5py.Dataset):
                return
            if path == "latents":
                bits = np.empty(dataset.shape, np.uint16)
                dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=dataset.id.get_type())
                if name == "marked":
                    new.create_dataset(path, data=bits).attrs["dtype"] = "bfloat16"
                    return
                space = h5py.h5s.create_simple(dataset.shape)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                if how:
                    plist.set_chunk((1, 3, *dataset.shape[2:]))
                made = h5py.h5d.create(new.id, b"latents", dataset.id.get_type(), space, dcpl=plist)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=dataset.id.get_type())
                return
            values = dataset[()]
            if name == "swapped" and values.dtype.kind in "if" and values.dtype.itemsize > 1:
                values = values.astype(values.dtype.newbyteorder(">"))
            new.create_dataset(path, data=values, **how)

        old.visititems(copy)
