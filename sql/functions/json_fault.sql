-- Returns why a JSON value is not accepted, null when it is. The size is at most `most` bytes of the text that a program writes: without the
-- blanks that PostgreSQL inserts and the zeros into which it expands exponents. An encrypted value may be twice as long.
create or replace function pgflow.json_fault(value jsonb, most integer) returns text
language plpgsql immutable parallel safe
as $$
declare
    most_written bigint := least(48 * most::bigint, 67108864);  -- as PostgreSQL writes it: the constraint of the column
    written text;
    size bigint;
    bare text;
begin
    if pg_column_size(value) <= 65536 then
        written := value::text;
    else
        begin
            written := value::text;
        exception when program_limit_exceeded then
            return format('that cannot be written out is over the limit of %s', most);
        end;
    end if;
    size := octet_length(written);
    if size > most and size <= most_written then
        bare := regexp_replace(written, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g');
        size := size - octet_length(bare) + octet_length(regexp_replace(bare, ' |0{5,}', '', 'g'));
        if jsonb_typeof(value -> 'pgflow:sealed') = 'string' then
            size := size / 2;
        end if;
    end if;
    if size > most then
        return format('of %s bytes is over the limit of %s', size, most);
    end if;
    if octet_length(replace(replace(written, '[', ''), '{', '')) < octet_length(written) - 64  -- cheaper than `translate`, and rules most values out
        and jsonb_path_exists(value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
        return 'is more than 64 levels deep';
    end if;
    return null;
end
$$;

-- json_fault for an input or a payload: 16 MiB, to which an app may raise its own limit.
create or replace function pgflow.json_fault(value jsonb) returns text
language sql immutable parallel safe
as $$ select pgflow.json_fault(value, 16777216) $$;
