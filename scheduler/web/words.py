"""Every string of the page, in both languages, in one place. Keys are sorted by where they appear."""

from __future__ import annotations

from collections.abc import Callable

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    "title": ("shisuan", "视算"),
    "tagline": ("compute scheduler", "算力调度"),
    "other_language": ("中文", "English"),
    "sign_out": ("Sign out", "退出"),
    "sign_in": ("Sign in", "登录"),
    "sign_in_with": ("Sign in with {issuer}", "使用 {issuer} 登录"),
    "key_label": ("API key", "API 密钥"),
    "key_hint": (
        "The key is in the file “key” of the home folder; `shisuan up` prints its path. It stays in this browser.",
        "密钥在主目录的 key 文件中，`shisuan up` 会打印它的路径。密钥只保存在本浏览器。",
    ),
    "away": (
        "The service does not answer. This page goes on by itself when it is back.",
        "服务暂无响应，恢复后本页会自动更新。",
    ),
    "runtime_up": ("running", "运行中"),
    "runtime_starting": ("starting", "启动中"),
    "runtime_down": ("runtime down, restarting", "运行时中断，正在重启"),
    "since": ("since {when}", "自 {when}"),
    "nodes": ("Nodes", "节点"),
    "no_nodes": ("No node has reported yet.", "还没有节点上报。"),
    "cpus": ("CPUs", "CPU"),
    "memory": ("Memory", "内存"),
    "cards": ("Cards", "显卡"),
    "no_cards": ("no cards", "无显卡"),
    "simulated": ("SIMULATED", "模拟"),
    "simulated_note": (
        "Simulated cards exist only on paper: no program sees them and they are never billed.",
        "模拟显卡仅供试用：程序看不到它们，也绝不计费。",
    ),
    "card_free": ("free", "空闲"),
    "card_held": ("held by {job}", "{job} 占用"),
    "all_cards": ("all cards", "全部显卡"),
    "cut_under_way": (
        "Cutting {card} into {layout}, since {since}.",
        "正在将{card}切分为 {layout}，自 {since} 起。",
    ),
    "cut_failed": (
        "Could not cut {card} into {layout} ({since}): {reason}. What is there stays in use, and rests.",
        "未能将{card}切分为 {layout}（{since}）：{reason}。现有实例继续使用，暂不再切分。",
    ),
    "jobs": ("Jobs", "作业"),
    "no_jobs": ("No jobs yet. Submit one:", "还没有作业。提交一个："),
    "job": ("Job", "作业"),
    "state": ("State", "状态"),
    "progress": ("Progress", "进度"),
    "tasks": ("Tasks", "任务"),
    "queue": ("Queue", "队列"),
    "priority": ("priority {n}", "优先级 {n}"),
    "tenant": ("Tenant", "租户"),
    "age": ("Submitted", "提交时间"),
    "ago": ("{length} ago", "{length} 前"),
    "took": ("Took", "用时"),
    "all_jobs": ("All jobs", "全部作业"),
    "kind": ("Kind", "类型"),
    "submitted": ("Submitted", "提交"),
    "started": ("Started", "开始"),
    "finished": ("Finished", "结束"),
    "deadline": ("Deadline", "截止"),
    "deadline_promised": (
        "The deadline is promised, with probability {chance} %: {nodes} from {start} to {end}.",
        "截止时间已承诺，概率 {chance}%：{nodes}，{start} 至 {end}。",
    ),
    "deadline_promised_film": (
        "The deadline is promised, with probability {chance} %: {kept}.",
        "截止时间已承诺，概率 {chance}%：{kept}。",
    ),
    "deadline_kept": (
        "step {step} in up to {places} places of {nodes} from {start} to {end}",
        "步骤 {step} 在 {nodes} 上最多占 {places} 个位置，{start} 至 {end}",
    ),
    "deadline_and": ("; ", "；"),
    "deadline_likely": (
        "The deadline is not promised; it was expected to be met with probability {chance} %.",
        "截止时间未承诺；提交时预计按时完成的概率为 {chance}%。",
    ),
    "deadline_unknown": (
        "The deadline is not promised: the job runs when it can.",
        "截止时间未承诺：作业有资源时即运行。",
    ),
    "explain": ("Why it waits", "为什么在等待"),
    "explain_link": ("When will it start, and what would start it now?", "预计何时开始？怎样可以立即开始？"),
    "explain_start": (
        "Expected to start at {middle} (9 of 10: {low} to {high}).",
        "预计 {middle} 开始（九成把握：{low} 至 {high}）。",
    ),
    "explain_changes": (
        "Each of these alone would start it now; each was tried:",
        "以下任一改动即可立即开始，均已试算：",
    ),
    "explain_none": ("Nothing of this job waits.", "该作业没有等待中的任务。"),
    "explain_note": (
        "Worked out when this page was opened; open it again for newer answers.",
        "以上为打开本页时的计算结果，重新打开可更新。",
    ),
    "steps": ("Steps", "步骤"),
    "needs": ("after {steps}", "在 {steps} 之后"),
    "ranks": ("{n} ranks together", "{n} 个进程同时启动"),
    "waits": ("Why it waits", "等待原因"),
    "wait_line": ("{step}: {tasks} waiting, place {position}", "{step}：{tasks} 个任务等待，排第 {position}"),
    "wait_line_short": ("{step}: {tasks} waiting", "{step}：{tasks} 个任务等待"),
    "reason_backoff": (
        "What failed is tried again after a while: task {task} first, not before {at}.",
        "失败的任务会在退避等待后重试：最先重试任务 {task}，不早于 {at}。",
    ),
    "gantt": ("Who held what when", "资源占用时间线"),
    "gantt_none": ("Nothing has been leased yet.", "尚无租约。"),
    "gantt_much": (
        "Too many attempts to draw; `shisuan usage {job}` adds them up.",
        "尝试过多，无法绘制；请用 `shisuan usage {job}` 汇总。",
    ),
    "starting": ("starting", "启动中"),
    "attempts": ("Latest attempts", "最近尝试"),
    "attempt": ("Attempt", "尝试"),
    "node": ("Node", "节点"),
    "used": ("Used", "实测"),
    "why": ("Why", "原因"),
    "log": ("Log", "日志"),
    "rank": ("rank {n}", "进程 {n}"),
    "log_none": ("Nothing was printed, or it was deleted as old.", "没有输出，或日志已过期删除。"),
    "log_soon": ("Nothing yet. This page goes on by itself.", "暂无输出，本页会自动更新。"),
    "log_end": ("The log ends here.", "日志到此为止。"),
    "log_first": ("From the beginning", "从头查看"),
    "log_more": ("Next piece", "下一段"),
    "log_command": ("All of it: `{command}`", "查看全部：`{command}`"),
    "outputs": ("Outputs", "输出"),
    "more": ("and {n} more", "另有 {n} 个"),
    "usage": ("Usage", "用量"),
    "usage_none": ("Sealed when a lease ends.", "租约结束时封存。"),
    "step": ("Step", "步骤"),
    "bucket": ("Bucket", "时间类别"),
    "sku": ("SKU", "计量项"),
    "leases": ("Leases", "租约"),
    "held": ("Held", "占用时长"),
    "amount": ("Amount", "数量"),
    "check": (
        "Check: {leased} leased = {sealed} recorded, error {error} ms",
        "核对：租约 {leased} = 记录 {sealed}，误差 {error} ms",
    ),
    "check_open": ("leases still open: {n}", "未结束的租约：{n}"),
    "statement": ("Statement", "账单"),
    "statement_none": ("Nothing was booked in this month.", "本月没有入账。"),
    "example_prices": ("EXAMPLE PRICES", "示例价格"),
    "example_note": (
        "Example prices, made up to try things out: nobody's offer. Your own go into the configuration file.",
        "示例价格，仅供试用，不构成任何报价。请在配置文件中写入自己的价格。",
    ),
    "at_list": ("At list price", "原价"),
    "deducted": ("Deducted by vouchers", "算力券抵扣"),
    "granted": ("Granted to you afterwards", "事后补贴"),
    "to_pay": ("To pay", "应付"),
    "yuan": ("yuan", "元"),
    "rounding": ("exactly {exact}, rounding {rounding}", "精确值 {exact}，舍入 {rounding}"),
    "per_hour": ("Yuan per hour", "元/小时"),
    "unit_card": ("card-hours", "卡时"),
    "unit_mig": ("MIG-instance-hours", "MIG 实例时"),
    "unit_vcpu": ("vCPU-hours", "vCPU 时"),
    "unit_memory": ("GiB-hours", "GiB 时"),
    "pays": ("{voucher} ({policy}, {owner}) pays {yuan}", "{voucher}（{policy}，{owner}）支付 {yuan}"),
    "pays_later": (", to you, afterwards", "，事后拨付给您"),
    "passed_over": (
        "{policy} would have paid {yuan}: the better one pays, never both",
        "{policy} 可支付 {yuan}：从优不重复",
    ),
    "taken_back": ("taken back:", "冲回："),
    "fallback_price": ("price of a model without its own", "按未列型号的通用价格"),
    "free_time": ("free: {reason}", "免费：{reason}"),
    "free_starting": ("free: being started", "免费：启动中"),
    "free_lost": ("free: the park lost it", "免费：园区故障导致丢失"),
    "free_preempted": ("free: preempted by the park", "免费：被园区抢占"),
    "free_simulated": ("simulated cards are never billed", "模拟显卡绝不计费"),
    "free_no_price": ("NO PRICE is recorded for this", "没有价格，未计费"),
    "limit_voucher_left": ("the voucher had no more", "券余额不足"),
    "limit_tenant_cap": ("the tenant's cap under the policy is reached", "已达该政策的单户上限"),
    "limit_pool_left": ("the pool had no more", "资金池余额不足"),
    "limit_partly_valid": ("only a part of the time is inside the validity", "仅部分时间在有效期内"),
    "limit_not_eligible": ("vouchers do not pay for this", "此项不可用券"),
    "limit_excluded": ("no voucher pays:", "不予补贴："),
    "limit_no_voucher": ("no voucher", "无券"),
    "limit_draft": ("a draft policy pays nothing:", "政策尚为征求意见稿，不支付："),
    "limit_not_in_policy": ("not named by the policy", "不在政策范围内："),
    "limit_purpose": ("the policy is for other kinds of work:", "政策不适用于此类作业："),
    "limit_outside_validity": ("outside the validity of", "不在有效期内："),
    "limit_truncated": ("less than the smallest amount of", "低于最小支付单位："),
    "traced": (
        "rate card {rate}, {lines} lines, ledger {first} to {last}",
        "价目 {rate}，{lines} 行，账本 {first} 至 {last}",
    ),
    "more_rows": ("and {n} more rows:", "另有 {n} 行："),
    "as_of": ("Ledger up to transaction {seq}, hash {hash}…", "账本截至第 {seq} 笔，哈希 {hash}…"),
    "vouchers": ("Vouchers", "算力券"),
    "voucher": ("Voucher", "券"),
    "policy": ("Policy version", "政策版本"),
    "owner": ("Department", "主管部门"),
    "amount_yuan": ("Amount", "面额"),
    "left": ("Left", "余额"),
    "paid": ("Paid", "已付"),
    "valid_until": ("Valid until", "有效期至"),
    "voucher_active": ("valid", "有效"),
    "voucher_not_yet": ("not valid yet", "尚未生效"),
    "voucher_expired": ("expired", "已过期"),
    "voucher_revoked": ("revoked", "已撤销"),
    "voucher_used_up": ("used up", "已用完"),
    "voucher_not_funded": ("not covered by its pool", "资金池未覆盖"),
    "voucher_draft": ("draft: pays nothing", "征求意见稿：不支付"),
    "cost": ("Cost so far", "已产生费用"),
    "cost_yuan": ("{yuan} yuan", "{yuan} 元"),
    "not_found": ("Not found", "未找到"),
    "refused": ("The service refused", "服务拒绝了请求"),
    "bucket_starting": ("starting", "启动中"),
    "bucket_held_charged": ("held, charged", "占用（计费）"),
    "bucket_held_free": ("held, free of charge", "占用（免费）"),
    "bucket_switching": ("switching", "切换中"),
    "bucket_free": ("free", "空闲"),
    "bucket_quarantined": ("quarantined", "隔离"),
    "bucket_external": ("external", "外部占用"),
    "bucket_unknown": ("unknown", "未知"),
    "state_held": ("held", "已挂起"),
    "state_waiting": ("waiting", "等待"),
    "state_leased": ("starting", "启动中"),
    "state_running": ("running", "运行"),
    "state_cancelling": ("cancelling", "取消中"),
    "state_succeeded": ("succeeded", "成功"),
    "state_failed": ("failed", "失败"),
    "state_timed_out": ("timed out", "超时"),
    "state_cancelled": ("cancelled", "已取消"),
    "state_preempted": ("preempted", "被抢占"),
    "state_lost": ("lost", "丢失"),
    "state_ready": ("ready", "就绪"),
    "state_cordoned": ("cordoned", "停止接收"),
    "state_unready": ("not ready", "未就绪"),
    "state_quarantined": ("quarantined", "隔离"),
    "state_external": ("in use by others", "外部占用"),
}

Translate = Callable[..., str]


def translator(language: str) -> Translate:
    """``t(key, **values)`` in ``language`` (``en`` or ``zh``)."""
    at = LANGUAGES.index(language)

    def translate(key: str, **values: object) -> str:
        return WORDS[key][at].format(**values)

    return translate


def choose(cookie: str, accept: str) -> str:
    """The language: what the reader chose, else the first of ``Accept-Language`` that is one of ours, else English."""
    if cookie in LANGUAGES:
        return cookie
    wishes = []
    for part in accept.split(","):
        name, _, rest = part.strip().partition(";q=")
        try:
            wishes.append((-float(rest or 1), name.lower()[:2]))
        except ValueError:
            continue
    # Stable: equal weights keep the browser's order.
    for _, name in sorted(wishes, key=lambda wish: wish[0]):
        if name in LANGUAGES:
            return name
    return "en"
