{#- A day is replaced as a whole, also by nothing. -#}
{%- set days = "between '" ~ var('first_day') ~ "' and '" ~ var('last_day') ~ "'" -%}
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{% if is_incremental() %}delete from {{ this }} where pickup_date between '{{ var('first_day') }}' and '{{ var('last_day') }}'{% endif %}",
) }}

select
    pickup_date,
    pickup_zone,
    count(*) as trips,
    round(cast(sum(total_amount) as decimal(18, 6)), 2) as revenue
from {{ ref('stg_trips') }}
-- The date prunes folders of the lake, the time prunes partitions of Postgres.
where pickup_date {{ days }}
    and pickup_datetime >= timestamp '{{ var("first_day") }} 00:00:00'
    and pickup_datetime < timestamp '{{ var("last_day") }} 00:00:00' + interval '1 day'
group by pickup_date, pickup_zone
