"""Find users like this one: `python examples/similar_users.py 7`. Without a URL, in memory."""

import os
import sys

import numpy as np

from chalk_online_store import OnlineStore, Vector, VectorIndex, feature, features


@features
class User:
    """A user, found by the embedding of what they have bought."""

    id: int
    country: str
    embedding: Vector[16] = feature(index=VectorIndex("cosine", filters=["country"]))


if __name__ == "__main__":
    key = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    vectors = np.random.default_rng(1).normal(size=(1000, 16))
    users = [User(id=i, country=["de", "ch"][i % 2], embedding=v) for i, v in enumerate(vectors)]
    with OnlineStore.open(os.environ.get("CHALK_ONLINE_STORE_URL", "sqlite://"), [User]) as store:
        store.write(User, users)
        user = store.get(User, key)
        found = store.search(User, "embedding", user["embedding"], 6, {"country": user["country"]})
        for row, distance in zip(found, found.scores, strict=True):
            print(f"user {row.key} in {row['country']}: {distance:.3f}")
