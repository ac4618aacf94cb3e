{{ config(materialized='view') }}

select
    lpep_pickup_date as pickup_date,
    lpep_pickup_datetime as pickup_datetime,
    coalesce(pulocationid, 264) as pickup_zone,
    total_amount
from {{ source('ny_taxi', 'green_cab_data') }}
