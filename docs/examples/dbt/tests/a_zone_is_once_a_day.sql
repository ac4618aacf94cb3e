select pickup_date, pickup_zone, count(*) as found
from {{ ref('daily_revenue') }}
where pickup_date between '{{ var("first_day") }}' and '{{ var("last_day") }}'
group by pickup_date, pickup_zone
having count(*) > 1
