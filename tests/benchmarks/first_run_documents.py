# ruff: noqa: E501 - lines of documents
"""Thirty documents of a small office for `first_run.py`, of known kinds; all fiction.

They were written before the example's prompts and rules, and nothing was tuned on them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A document, its kind, and of an invoice what it says."""

    name: str
    kind: str
    """Empty: none of the labels fits, so that only waiting is right."""
    text: str
    number: str = ""
    total: float = 0.0
    pay_by: str = ""
    """Empty: no day is named."""


HELD_BACK = (
    HeldBack(
        "bakery.txt", "invoice",
        """Oven Street Bakery
17 Oven Street, Brackley

INVOICE No. 2024/0331
Customer: Reading Room, Nether Hallow
Date: 31 May 2024

120 rolls, white         36.00 EUR
4 plum cakes             64.00 EUR
Coffee for 60            48.20 EUR

Amount due:             148.20 EUR
Due date: 30 June 2024

Thank you for your order. We look forward to baking for you again.
""",
        "2024/0331", 148.20, "30 June 2024",
    ),
    HeldBack(
        "dentist.txt", "invoice",
        """Dr Petra Amsel, Dental Surgeon
3 Cathedral Close, Wexcombe

Statement of fees D-5521
Patient: Mr Colin Finch

12 April  Examination with two X-rays     £42.00
19 April  One filling, lower left          £53.00

Total payable £95.00
Please pay within 14 days, by bank transfer or at the desk.
""",
        "D-5521", 95.0, "",
    ),
    HeldBack(
        "plumber.pdf", "invoice",
        """Varga & Sons, Plumbing and Heating
Invoice number: P-24-218
For: Mrs J. Odell, 2 Mill Lane, Nether Hallow
Pressure valve replaced, two hours of work: 130.00 EUR
Valve, brass, 3/4 inch: 41.50 EUR
VAT 20 %: 34.30 EUR
Total: 205.80 EUR
Please pay by 14 August 2024.
""",
        "P-24-218", 205.80, "14 August 2024",
    ),
    HeldBack(
        "hosting.eml", "invoice",
        """From: Billing <billing@tidewire.example>
To: Office <office@hallow.example>
Date: Mon, 03 Jun 2024 07:00:00 +0000
Subject: Your invoice TW-90114

Hello,

this is the invoice for your web space from June to November.

Invoice: TW-90114
Web space "Small", 6 months at 3.98 EUR: 23.88 EUR
Total: 23.88 EUR
Payment due: 17 June 2024

You need not do anything if you pay by direct debit.

Tidewire Hosting
""",
        "TW-90114", 23.88, "17 June 2024",
    ),
    HeldBack(
        "print-shop.md", "invoice",
        """# Letterpress Lister

**Invoice** LL/77 of 2 July 2024, for the Hallow Valley Buildings Trust

| Item | Pieces | Price | Amount |
|---|---|---|---|
| Posters A2, two colours | 50 | 1.90 | 95.00 |
| Leaflets | 400 | 0.12 | 48.00 |

Subtotal 143.00 EUR. VAT 10 %: 14.30 EUR.

**Total to pay: 157.30 EUR** until 2 August 2024, to the account below.
""",
        "LL/77", 157.30, "2 August 2024",
    ),
    HeldBack(
        "carpenter.txt", "invoice",
        """Okafor Joinery                                     Bill
Unit 4, Old Tannery, Brackley

Our number: 1187                                   9 September 2024

Oak stairs, 13 steps, made and fitted             4,350.00
Handrail                                            610.00
                                                  --------
Sum                                               4,960.00
Deposit received in July                         -1,500.00
                                                  --------
Balance to pay                                    3,460.00 EUR

Payable by 7 October 2024.
""",
        "1187", 3460.0, "7 October 2024",
    ),
    HeldBack(
        "garden-wall.txt", "letter",
        """8 Mill Lane
Nether Hallow

4 March

Dear Mr Tull,

I am sorry to write to you about the wall again. Since the frost in January the part behind your pear tree leans over our path by a hand's breadth, and on Sunday two stones fell where my grandson plays.

We agreed last summer that the wall is yours and the path is ours. Would you have a mason look at it before Easter? I would gladly share the cost of the coping.

With kind regards to your wife,

Yours sincerely,

Harriet Lister
""",
    ),
    HeldBack(
        "resignation.txt", "letter",
        """Dear Dr Brandt,

I have decided to give up my post as organist at the end of September. It has been nineteen years, and my hands no longer do what they are asked on cold mornings.

I shall play for the weddings that are in the book, and I am willing to teach whoever comes after me. Miss Penhale's pupil Anna plays very well, and would need only a key and some courage.

Thank you for your patience with the blower.

Yours faithfully,

Edmund Rowe
""",
    ),
    HeldBack(
        "school-trip.pdf", "letter",
        """Brackley Primary School
12 Church Walk, Brackley

2 May

Dear parents of Class 4B,

On 23 May we will go to the salt works museum by bus. The children should bring a packed lunch, a raincoat and shoes that may get wet. We leave at half past eight from the school gate and will be back at four.

The museum has given us free entry, so there is nothing to pay. If your child takes medicine at noon, please write to me before the day.

Yours sincerely,

Tom Hallam
Class teacher
""",
    ),
    HeldBack(
        "landlord.md", "letter",
        """Hallow Housing, Brackley

To the tenants of 14 to 22 Tannery Row

Dear tenants,

From 3 June the roof of your house will be repaired. There will be scaffolding in front of the windows for about five weeks, and noise between eight and five on weekdays. The back gate stays open at all times.

Please take in whatever stands on the balconies before that day. If you work at night, call us: we have two empty flats that you may use during the day.

Yours sincerely,

Sofia Marsh, for the owners
""",
    ),
    HeldBack(
        "bank.txt", "letter",
        """Wexcombe Savings Bank
1 Harbour Square

20 November 2024

Dear Mr Bell,

Your savings bond ends on 31 December. You may take out the money, or leave it for another two years at the rate that holds on that day.

If we do not hear from you, the bond is paid to your current account on the first working day of January. You can tell us what you would like at any counter, or by returning this letter with a cross in one of the boxes on the back.

Yours sincerely,

Ivo Marchant
Customer care
""",
    ),
    HeldBack(
        "thanks.txt", "letter",
        """Dear Aunt Ines,

Thank you for the clock! It stands on the shelf above the stove and is seven minutes slow, which suits this house. Ben took it to pieces on the first evening, as you said he would, and put it back together without a screw left over.

We will come at the end of August, all four of us and the dog, if your knee is better by then. Do not cook.

With love from all of us,

Ruth
""",
    ),
    HeldBack(
        "complaint.pdf", "letter",
        """5 Ferry Steps
Calder Ferry

16 October

Dear Sir or Madam,

On 9 October I bought a return ticket for the ferry of 10.15, which did not run. Nobody on the pier knew why. I missed an appointment at the hospital that I had waited four months for.

I do not ask for the price of the ticket. I ask that you put up a board on the pier, and that someone writes on it. Please let me know when this will be done.

Yours faithfully,

Agatha Lorne
""",
    ),
    HeldBack(
        "allotments.md", "minutes",
        """# Allotment Society: minutes of the annual meeting, 9 November

**Present:** Mr Bell (chair), Mrs Rowe, Mr Nakamura, Miss Fell and 21 members. **Apologies:** Mr Tull.

1. The minutes of last year's meeting were approved.
2. The treasurer reported a balance of 1,204 euros. The accounts were accepted without a vote against.
3. Water. The meeting discussed a second tank. It was agreed, by 19 votes to 4, to buy one in spring.
4. Mrs Rowe was elected secretary.

The meeting closed at 8.50 p.m. Next meeting: 8 November.
""",
    ),
    HeldBack(
        "choir-committee.txt", "minutes",
        """CHOIR COMMITTEE, TUESDAY 14 JANUARY

Attended by: Anna, Edmund, Ida, Piet (minutes)

Concert in May: Edmund proposed the mass in G. Ida thought it too hard for the tenors. Decided: we try the Kyrie for three weeks and decide again.
Piano: tuner comes in February. Action: Ida calls him.
Robes: nobody wants them. Decided to give them to the school.
Any other business: none.

Meeting ended 21.15. Next on 11 February.
""",
    ),
    HeldBack(
        "board-september.pdf", "minutes",
        """Harbour Board
Minutes of the meeting held on 18 September in the pilot house
Present: Captain Mulder (chair), Mrs Calloway, Mr Pell, the clerk
Apologies were received from Dr Brandt.
The minutes of 17 July were read and signed.
Dredging: the clerk reported that the contractor cannot begin before March. The board resolved to ask two
other firms for a price.
Fog bell: Mr Pell reported that the spring was broken. It was resolved to pay for a new one.
There being no other business, the meeting was closed at ten minutes past nine.
""",
    ),
    HeldBack(
        "parents.md", "minutes",
        """## Parents' evening, Class 4B, notes of 6 February

Present: 17 parents, Mr Hallam, Ms Odell (took these minutes)

- **Swimming.** The pool is closed until April. Agreed to move the lessons to May.
- **Lunch.** Two parents asked for less sugar. Mr Hallam will speak to the kitchen and report back next time.
- **Summer fair.** Vote: 12 for Saturday, 5 for Sunday. Saturday it is. Stalls: see list at the door.

Closed at 20.40.
""",
    ),
    HeldBack(
        "works-council.txt", "minutes",
        """Minutes 7/2024 of the works council, Tidewire Hosting
Date: 3 July 2024, 10.00 to 11.25
Chair: S. Marsh. Minutes: T. Okafor. Excused: P. Varga.

Item 1: Minutes 6/2024 approved.
Item 2: Night shifts. The council heard the proposal of the management and rejected it with six votes against one.
Item 3: Bicycle stands. Management has agreed to build twelve. T. Okafor to confirm the place by the end of July.
Item 4: Next meeting on 7 August.
""",
    ),
    HeldBack(
        "keys.eml", "mail",
        """From: Piet Mulder <piet@mulder.example>
To: Agatha Lorne <lorne@survey.example>
Date: Thu, 11 Apr 2024 18:20:00 +0000
Subject: keys of the mill

Hi Agatha,

I left the keys with the woman in the post office, she is there until five tomorrow. Mind the third stair, it has gone soft since we were there.

Could you bring your moisture meter? Mine gives up above thirty per cent.

Piet
""",
    ),
    HeldBack(
        "standup.eml", "mail",
        """From: Sofia Marsh <sofia@tidewire.example>
To: team@tidewire.example
Date: Tue, 02 Jul 2024 08:02:00 +0000
Subject: Server room: no access on Friday

Hi all,

the fire doors are tested on Friday between 9 and 12, so nobody can get into the server room. If something must be done there, do it on Thursday, or tell me and I will ask them to begin with the other floor.

Best,
Sofia
""",
    ),
    HeldBack(
        "lost-glove.eml", "mail",
        """From: Ruth Hallam <ruth@hallam.example>
To: museum@saltworks.example
Date: Sun, 05 May 2024 20:41:00 +0000
Subject: Glove?

Hello,

we were with you on Thursday, and my son seems to have left one blue glove next to the otter. If you find it, would you put it aside? We come through Wexcombe again in two weeks.

Many thanks
Ruth Hallam
""",
    ),
    HeldBack(
        "rehearsal.eml", "mail",
        """From: Edmund Rowe <rowe@choir.example>
To: choir@hallow.example
Date: Mon, 13 May 2024 09:30:00 +0000
Subject: Re: rehearsal on Thursday

Dear all,

Thursday begins at 7, not at 7.30, since the tenors want another hour with the Kyrie. The heating is off: bring a coat.

Anna, can you open the door?

Edmund

> On Sunday Anna wrote:
> Is it half past seven this week as well?
""",
    ),
    HeldBack(
        "interview.eml", "mail",
        """From: Ivo Marchant <marchant@wexcombe-bank.example>
To: Lena Brook <lena@brook.example>
Date: Wed, 18 Sep 2024 14:11:00 +0000
Subject: Your application: talk on 26 September

Dear Ms Brook,

thank you for your application. We would like to meet you on 26 September at ten, in our house at the harbour. Please bring the certificates of your training; it will take about an hour.

If the time does not suit you, simply answer this mail.

Best regards
Ivo Marchant
""",
    ),
    HeldBack(
        "members.csv", "table",
        """name,village,plot,since,paid
Bell,Brackley,1,1998,yes
Rowe,Cold Ash,2,2004,yes
Nakamura,Brackley,3,2019,no
Fell,Calder Ferry,4,2011,yes
Tull,Nether Hallow,5,1987,no
""",
    ),
    HeldBack(
        "tides.csv", "table",
        """day;first high water;metres;second high water;metres
1 June;05:12;4.1;17:40;4.3
2 June;06:03;4.3;18:29;4.5
3 June;06:51;4.5;19:15;4.7
4 June;07:37;4.6;20:01;4.8
""",
    ),
    HeldBack(
        "prices.md", "table",
        """| Stall | Size | Day | Week |
|---|---|---|---|
| North aisle | 2 m | 12.00 | 60.00 |
| South aisle | 3 m | 18.00 | 90.00 |
| Corner | 4 m | 26.00 | 130.00 |
| Yard, from May | 6 m | 20.00 | 95.00 |
""",
    ),
    HeldBack(
        "pump.txt", "instructions",
        """FOOT PUMP FP-2: HOW TO USE IT

1. Unfold the pedal until it clicks.
2. Push the hose onto the valve and press the lever down.
3. Pump with your foot until the gauge shows the pressure you need. Never pump above 7 bar.
4. Lift the lever and pull off the hose.

If the pedal sticks, put one drop of oil on the hinge. Do not oil the valve. Keep the pump dry and away from children.
""",
    ),
    HeldBack(
        "boiler-manual.pdf", "instructions",
        """Ardent Compact 24: short manual
Switching on
Open the gas tap. Turn the knob to the right and hold it for ten seconds until the flame burns.
Setting the temperature
Press + or - until the display shows the temperature that you want. Wait three seconds; the value is stored.
Code F28
The boiler has locked after three failed starts. Check that the gas tap is open. Press Reset for five seconds. If the
code comes back, call a fitter. Warning: never open the casing yourself.
""",
    ),
    HeldBack(
        "starter.md", "instructions",
        """# How to feed the sourdough starter

You need a clean jar, flour, water at 26 degrees and a scale.

1. Take 20 grams of starter and throw the rest away.
2. Add 40 grams of water and stir until it is milky.
3. Add 40 grams of flour, and mix until no dry flour is left.
4. Cover the jar loosely. Leave it for eight hours at room temperature.

Do not close the lid tightly: the jar may burst.
""",
    ),
    HeldBack(
        "tide-poem.txt", "",
        """The harbour keeps its lamps for nobody,
the bell has lost its spring,
and all night long the tide comes in
to look for anything.

It takes a rope, a plank, a shoe,
it brings them back by day,
and what it could not use itself
it lays along the bay.
""",
    ),
)  # fmt: skip

LOOK_ALIKES = (
    HeldBack(
        "complaint.txt", "letter",
        """Dear Sir or Madam,

your invoice 24-9 of 3 May arrived today. The total of 120.00 EUR is wrong: we ordered one table and not two.
Please send a corrected invoice. Until then we shall not pay by 1 June as you ask.

Yours sincerely,
Ada Cole
""",
    ),
    HeldBack(
        "quote.md", "",
        """# Quotation 881

Painting of two rooms
Net: 500.00 EUR
VAT 20 %: 100.00 EUR
Total: 600.00 EUR

This offer is valid until 30 June 2024. This is not an invoice.
""",
    ),
    HeldBack(
        "credit-note.txt", "",
        """Credit note 77
for invoice number 24-003 of 2 April 2024

Returned: one lamp
Total: -40.00 EUR
VAT included. The amount will be paid to you by 1 May 2024.
""",
    ),
    HeldBack(
        "discount.txt", "invoice",
        """Marsh & Sons
Invoice number: 24-410

Timber 100.00
Total: 100.00 EUR
Discount: 10.00 EUR
Amount due: 90.00 EUR
VAT 0 %
Pay by: 5 July 2024
""",
        "24-410", 90.0, "5 July 2024",
    ),
    HeldBack(
        "order-number.txt", "invoice",
        """Ferry Print
Order number: 5531
Invoice no. A-17

Posters, 200
Total: 84.00 EUR incl. VAT
Pay by: 12 July 2024
""",
        "A-17", 84.0, "12 July 2024",
    ),
    HeldBack(
        "thirty-days.txt", "invoice",
        """Quay Hardware
Invoice number: 998-2

Screws 4.00
Total: 4.00 EUR, VAT included
Pay by: 30 days after receipt
""",
        "998-2", 4.0, "",
    ),
    HeldBack(
        "hours.txt", "invoice",
        """Calder Gardeners
Invoice number: G-12
Total hours: 12
Hourly rate: 45.00 EUR
VAT 0 %
Total: 540.00 EUR
Pay by: 20 July 2024
""",
        "G-12", 540.0, "20 July 2024",
    ),
    HeldBack(
        "last-invoice.txt", "invoice",
        """North Water
Invoice number: 7781
Your last invoice, number 7702, total 61.00 EUR, was to be paid by 1 May 2024. Thank you.
Water, May to June: 64.20 EUR
Total: 64.20 EUR with VAT
Pay by: 1 August 2024
""",
        "7781", 64.2, "1 August 2024",
    ),
    HeldBack(
        "receipt.txt", "",
        """RECEIPT
Invoice 5512 paid in cash on 3 June 2024
Total: 18.00 EUR
VAT: 3.00 EUR
Thank you!
""",
    ),
    HeldBack(
        "reminder.txt", "",
        """Dear Mr Hale,

REMINDER: our invoice number 24-301 of 2 March, total 75.00 EUR, was to be paid by 2 April 2024.
With a fee of 5.00 EUR you now owe 80.00 EUR. Please pay by 20 April 2024.

Yours sincerely, Ferry Print
""",
    ),
    HeldBack(
        "two-totals.txt", "invoice",
        """Invoice number: S-1
Total March: 30.00 EUR
Total April: 50.00 EUR
Total: 80.00 EUR
VAT included
Pay by: 03/04/2024
""",
        "S-1", 80.0, "03/04/2024",
    ),
    HeldBack(
        "agenda.txt", "",
        """Reading Room: agenda for 3 June
1. Apologies
2. The roof
3. Any other business
You are invited. The chair will be Mrs Rowe; next meeting in July.
""",
    ),
    HeldBack(
        "story.txt", "",
        """"You must never turn the key," she said. Do not press the bell, warned the old man.
He made sure that the lamp was out. A warning! The story ends here.
""",
    ),
    HeldBack(
        "contract.txt", "",
        """Lease of the boat house
The tenant agrees to pay by the first of each month a total of 40.00 EUR with VAT. Payable in cash. An invoice is not sent.
The tenant shall never sublet and do not make sure of other rules.
""",
    ),
    HeldBack(
        "about-minutes.txt", "letter",
        """Dear Ann,

the minutes of our meeting are not ready. It was agreed that the chair writes them, and the agenda for the next meeting follows.

Regards, Bo
""",
    ),
)  # fmt: skip
"""Written later, by another hand, to be taken for what they are not: none may be wrong and sure."""
