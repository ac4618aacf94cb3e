{%- set months -%}
between date_trunc('month', date '{{ var("first_day") }}') and date_trunc('month', date '{{ var("last_day") }}')
{%- endset -%}
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{% if is_incremental() %}delete from {{ this }} where month between date_trunc('month', date '{{ var('first_day') }}') and date_trunc('month', date '{{ var('last_day') }}'){% endif %}",
) }}

select
    cast(date_trunc('month', pickup_date) as date) as month,
    count(distinct pickup_date) as days,
    cast(sum(trips) as bigint) as trips,
    sum(revenue) as revenue
from {{ ref('daily_revenue') }}
where date_trunc('month', pickup_date) {{ months }}
group by 1
