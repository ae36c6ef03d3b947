"""Large values outside the database: the contract of a payload store, a store in a folder, and an app's policy.

    store     `PayloadStore`, which users implement for an object store; `FolderStore` is in folder
    folder    objects as files, written atomically
    policy    what an app accepts, encrypts and keeps outside; the only code that calls a store
    instance  references in whole instances, for readers

Decisions:

*The row stays the truth.* An object is written before the transaction that stores its reference, and deleted after the
transaction that deletes its row, so a stored reference always has its object. Whatever fails in between leaves an
object without a row, which `sweep` deletes when it is old enough that no transaction can still bring its row.

*A deleted row leaves its reference behind.* The statement that deletes it inserts the reference into `stale_payloads`;
a worker whose app has the store deletes the objects. So `prune` and `delete` need no store, and a crash loses nothing.

*An object belongs to one place.* Its key begins with a digest of the workflow, the business id and the step or signal.
A reference that is copied to another row, or made up by a client, is refused: it could read or delete foreign objects.

*A store is synchronous.* pgflow calls it from threads; an async client would tie it to one event loop.
"""
