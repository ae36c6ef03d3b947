-- Returns why a JSON value is not accepted as an input, a payload or metadata, null when it is. The size is at most that of the text a program
-- writes: without the blanks that PostgreSQL inserts and the zeros into which it expands exponents. An encrypted value may be twice as long.
create or replace function pgflow.json_fault(value jsonb) returns text
language plpgsql immutable parallel safe
as $$
declare
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
            return 'that cannot be written out is over the limit of 65536';
        end;
    end if;
    size := octet_length(written);
    if size between 65537 and 3145728 then
        bare := regexp_replace(written, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g');
        size := size - octet_length(bare) + octet_length(regexp_replace(bare, ' |0{5,}', '', 'g'));
        if jsonb_typeof(value -> 'pgflow:sealed') = 'string' then
            size := size / 2;
        end if;
    end if;
    if size > 65536 then
        return format('of %s bytes is over the limit of 65536', size);
    end if;
    if octet_length(replace(replace(written, '[', ''), '{', '')) < octet_length(written) - 64  -- cheaper than `translate`, and rules most values out
        and jsonb_path_exists(value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
        return 'is more than 64 levels deep';
    end if;
    return null;
end
$$;
