"""JSON payloads and the small values around them: encoding, codecs, secrets, names, sanitizing.

payload, roundtrip            encode to JSON text, decode to the declared type, and compare the two
flat                          types with plain fields, which need no general walk
absent, aliases               arguments that were left out; fields written and read under different names
codec, secret                 encryption before storage, and the pydantic secrets that require it
names, query_args, duration   validate names, filter arguments and durations
sanitize                      make untrusted text safe to store, log and print
append_map, containment       an immutable mapping with cheap insertion; `jsonb @> jsonb` in Python
"""
