{{ config(meta={'dagster': {'ref': {'name': 'monthly_revenue'}}}) }}

select m.month, m.trips, sum(d.trips) as trips_of_days
from {{ ref('monthly_revenue') }} as m
left join {{ ref('daily_revenue') }} as d on cast(date_trunc('month', d.pickup_date) as date) = m.month
group by m.month, m.trips
having m.trips <> sum(d.trips) or sum(d.trips) is null
